"""What runs inside a reservation pod: it reports the device that the pod holds, and what goes wrong with it.

Thousands of it run at a time, each in 64 MiB, and a bind waits for each new one to start: so it needs nothing but the
standard library and NVML's binding.
"""
