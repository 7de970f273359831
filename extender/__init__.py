"""gpu-extender: GPU sharing for the stock kube-scheduler."""
