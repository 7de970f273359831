"""What users read."""

import pytest

from extender.core import notices
from extender.core.notices import About
from extender.core.values import PodOnNode, ShareOnGpu

NODE = About.node("gpu-01", "uid-n")


def pod(*mib: int) -> PodOnNode:
    shares = tuple(ShareOnGpu(f"share-{i}", f"GPU-{i}", size) for i, size in enumerate(mib))
    return PodOnNode("uid-1", "team", "llm-0", "gpu-01", {}, shares)


@pytest.mark.parametrize(
    ("notice", "text"),
    [
        (notices.placed(pod(4096)), "got 4096 MiB of GPU memory of GPU-0 on node gpu-01"),
        (notices.placed(pod(4096, 4096)), "got 4096 MiB of GPU memory on each of GPU-0 and GPU-1 on node gpu-01"),
        (
            notices.placed(pod(10, 30, 20)),
            "got 10 to 30 MiB of GPU memory on each of GPU-0, GPU-1 and GPU-2 on node gpu-01",
        ),
        (notices.opening(About.pod("team", "llm-0", "u"), "gpu-01"), "waits for a new shared GPU on node gpu-01"),
        (notices.lost(pod(1), "GPU-0"), "GPU-0 on node gpu-01 is no longer reserved for this pod, which keeps running"),
        (notices.repaired(pod(1), "GPU-0"), "GPU-0 on node gpu-01 is reserved for this pod again"),
        (notices.closed(NODE, ["GPU-0", "GPU-1"]), "pods run on GPU-0 and GPU-1 without a reservation"),
        (notices.reopened(NODE), "GPUs are given out again"),
        (notices.repair_failed(NODE, "GPU-0"), "GPU-0 is not among the free GPUs of the node"),
        (notices.bypassed(pod()), "was bound to node gpu-01 past the GPU extender and has no GPU"),
        (notices.changed(pod(1)), "its share of GPU-0 on node gpu-01 counts as it was until the pod ends"),
        (notices.refused(NODE, "the parser's sentence"), "the parser's sentence"),
    ],
)
def test_it_says_what_and_where(notice: notices.Notice, text: str) -> None:
    assert text in notice.text
    assert notice.reason in notices.MEANING
    assert notice.about in (NODE, About.pod("team", "llm-0", "uid-1"), About.pod("team", "llm-0", "u"))


def test_a_share_whose_device_is_not_known_is_told_by_its_gpu() -> None:
    unreported = PodOnNode("u", "team", "llm-0", "n", {}, (ShareOnGpu("share-7", None, 5),))
    assert "of share-7 on node n" in notices.placed(unreported).text


def test_warnings_are_what_somebody_should_look_at() -> None:
    assert notices.closed(NODE, ["GPU-0"]).is_warning
    assert not notices.reopened(NODE).is_warning
    assert set(notices.MEANING) >= notices.WARNINGS
