"""One parser from a pod to a request or a refusal: every rule, every edge, and which rule speaks first."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from extender.core import names
from extender.core.requests import GpuRequest, InvalidRequest, Share
from tests.builders import PodBuilder, make_pod

GPU = names.GPU_RESOURCE
GI = 2**30

FRACTION_RULE = "must be a fraction above 0 and below 1 with at most 18 digits, such as 0.5"
MEMORY_RULE = "must be a whole number of MiB from 1 to 999999999, such as 4096"
DEVICES_RULE = "must be a whole number from 1 to 999"
QUANTITY_RULE = "must be a quantity of at least 1Mi, such as 4Gi"
NO_SHARE = "the pod asks for no GPU share"
NO_CONTAINER = "the pod has no such container"


def key(container: str, suffix: str) -> str:
    return f"nvidia.com/container.{container}.{suffix}"


def accepted(pod: PodBuilder | dict[str, Any]) -> GpuRequest:
    request = GpuRequest.from_pod(pod.build() if isinstance(pod, PodBuilder) else pod)
    assert isinstance(request, GpuRequest), request
    return request


def share(pod: PodBuilder) -> Share:
    found = accepted(pod).share
    assert found is not None
    return found


def refused(pod: object) -> str:
    request = GpuRequest.from_pod(pod.build() if isinstance(pod, PodBuilder) else pod)
    assert isinstance(request, InvalidRequest), request
    return request.sentence


class TestRequests:
    def test_a_pod_with_nothing_to_do_with_gpus(self) -> None:
        request = accepted(make_pod().container(requests={"cpu": "500m", "memory": "1Gi"}))
        assert request == GpuRequest(None, {"cpu": 500, "memory": GI})
        assert not request.asks_for_gpu
        assert (request.whole_gpus, request.cpu_milli, request.memory_bytes) == (0, 500, GI)
        assert (request.gpus, request.containers, request.strategy) == ((), (), None)

    @pytest.mark.parametrize("given", [None, "", "high", "system", 1, ["system-node-critical"], {}])
    def test_critical_are_two_priorities_and_no_other(self, given: Any) -> None:
        pods = [make_pod().gpus(1), make_pod()]
        for name in ("system-node-critical", "system-cluster-critical"):
            assert [accepted(pod.spec(priorityClassName=name)).is_critical for pod in pods] == [True, True]
        named = [accepted(pod) for pod in pods]
        others = [accepted(pod.spec(priorityClassName=given)) for pod in pods]
        assert [request.is_critical for request in others] == [False, False], "whatever was remembered of its like"
        assert [a.shape == b.shape for a, b in zip(named, others, strict=True)] == [False, False]

    def test_a_pod_that_names_no_cpu_and_memory(self) -> None:
        request = accepted(make_pod())
        assert (request.cpu_milli, request.memory_bytes) == (0, 0)

    def test_whole_gpus(self) -> None:
        request = accepted(make_pod().container(limits={GPU: "2"}))
        assert request.asks_for_gpu
        assert request.whole_gpus == 2
        assert request.gpus == ((GPU, 2),)
        assert request.share is None

    @pytest.mark.parametrize(
        "resource",
        ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "nvidia.com/GRID_A100-10C", "nvidia.com/x"],
    )
    def test_other_units_of_the_domain_are_gpu_resources_but_no_whole_gpus(self, resource: str) -> None:
        request = accepted(make_pod().gpus(1, resource))
        assert request.asks_for_gpu
        assert request.gpus == ((resource, 1),)
        assert request.whole_gpus == 0

    @pytest.mark.parametrize("resource", ["amd.com/gpu", "nvidia.company/gpu", "example.com/nvidia.com"])
    def test_other_domains_are_none_of_ours(self, resource: str) -> None:
        assert not accepted(make_pod().gpus(1, resource)).asks_for_gpu

    def test_several_gpu_resources_are_sorted_and_zeros_left_out(self) -> None:
        pod = make_pod().container(limits={"nvidia.com/mig-2g.20gb": "1", GPU: "2", "nvidia.com/a": "0"})
        assert accepted(pod).gpus == ((GPU, 2), ("nvidia.com/mig-2g.20gb", 1))

    def test_whole_gpus_of_init_and_sidecar_containers(self) -> None:
        pod = make_pod().container("a", limits={GPU: "1"}).init_container("i", limits={GPU: "4"})
        pod.init_container("s", limits={GPU: "1"}, sidecar=True)
        assert accepted(pod).whole_gpus == 4

    @pytest.mark.parametrize("text", ["0.5", ".5", "0.50", "0.500000000000000000"])
    def test_fractions(self, text: str) -> None:
        request = accepted(make_pod().fraction(text))
        assert request.share == Share(fraction=Fraction(1, 2))
        assert request.containers == ("main",)
        assert request.asks_for_gpu

    @pytest.mark.parametrize("text", ["0.999999999999999999", "0.000000000000000001", ".1"])
    def test_fractions_are_exact_to_18_digits(self, text: str) -> None:
        assert share(make_pod().fraction(text)).fraction == Fraction(text)

    @pytest.mark.parametrize(("text", "mib"), [("1", 1), ("4096", 4096), ("000000001", 1), ("999999999", 999999999)])
    def test_memory(self, text: str, mib: int) -> None:
        assert share(make_pod().gpu_memory(text)) == Share(memory_mib=mib)

    @pytest.mark.parametrize(("text", "devices"), [("1", 1), ("2", 2), ("008", 8), ("999", 999)])
    def test_devices(self, text: str, devices: int) -> None:
        assert share(make_pod().fraction("0.5").num_devices(text)).devices == devices
        assert share(make_pod().container_gpu_memory("main", limit="1Gi").num_devices(text)).devices == devices

    def test_the_share_goes_to_the_first_ordinary_container(self) -> None:
        pod = make_pod().init_container("i").container("a").container("b").fraction("0.5")
        assert accepted(pod).containers == ("a",)

    @pytest.mark.parametrize("name", ["i", "a", "b"])
    def test_the_share_goes_to_the_named_container_init_ones_too(self, name: str) -> None:
        pod = make_pod().init_container("i").container("a").container("b").fraction("0.5").container_name(name)
        assert accepted(pod).containers == (name,)

    @pytest.mark.parametrize("strategy", names.STRATEGIES)
    def test_strategy(self, strategy: str) -> None:
        assert accepted(make_pod().fraction("0.5").strategy(strategy)).strategy == strategy
        assert accepted(make_pod().gpus(1).strategy(strategy)).strategy == strategy

    def test_a_share_keeps_cpu_and_memory(self) -> None:
        request = accepted(make_pod().fraction("0.5").container(requests={"cpu": "2", "memory": "1Gi"}))
        assert (request.cpu_milli, request.memory_bytes) == (2000, GI)

    def test_a_gpu_resource_of_quantity_zero_is_none(self) -> None:
        request = accepted(make_pod().fraction("0.5").container(limits={GPU: "0"}))
        assert request.share is not None
        assert request.gpus == ()

    def test_what_we_write_ourselves_asks_for_nothing(self) -> None:
        pod = make_pod().annotation(key("main", "gpus.devices"), "GPU-1").annotation(names.MEMORY_MIB, "5")
        assert not accepted(pod).asks_for_gpu

    def test_huge_but_well_formed_is_a_request_that_fits_nowhere(self) -> None:
        """HAMi: a gpumem of 1e12 and a count of 2^32+1 passed as if no GPU was asked for."""
        for count in (2**32 + 1, "1e12", "1e30", 2**64 + 1):
            assert accepted(make_pod().gpus(count)).whole_gpus > 2**31
        assert share(make_pod().gpu_memory("999999999").num_devices("999")) == Share(memory_mib=999999999, devices=999)
        assert share(make_pod().container_gpu_memory("main", limit="1e30")).memory_mib == 2**43


class TestPerContainer:
    def test_one_container(self) -> None:
        request = accepted(make_pod().container_gpu_memory("main", request="2Gi", limit="4Gi"))
        assert request.share == Share(memory_mib=4096)
        assert request.containers == ("main",)

    @pytest.mark.parametrize("given", ["request", "limit"])
    def test_a_missing_one_takes_the_others_value(self, given: str) -> None:
        assert share(make_pod().container_gpu_memory("main", **{given: "4Gi"})).memory_mib == 4096

    @pytest.mark.parametrize(("text", "mib"), [("1Mi", 1), ("1048576", 1), ("1048577", 2), ("1.5Mi", 2), ("2M", 2)])
    def test_rounded_up_to_mib(self, text: str, mib: int) -> None:
        assert share(make_pod().container_gpu_memory("main", limit=text)).memory_mib == mib

    def test_each_container_is_rounded_before_they_are_added(self) -> None:
        pod = make_pod().container("a").container("b").container("c")
        pod.container_gpu_memory("a", limit="1.1Mi").container_gpu_memory("c", limit="1.1Mi")
        request = accepted(pod)
        assert request.share == Share(memory_mib=4)
        assert request.containers == ("a", "c")

    def test_init_containers_by_the_maximum_rule(self) -> None:
        pod = make_pod().container("app").init_container("small").init_container("big").init_container("idle")
        pod.container_gpu_memory("app", limit="2Gi").container_gpu_memory("small", limit="1Gi")
        pod.container_gpu_memory("big", limit="3Gi")
        request = accepted(pod)
        assert request.share == Share(memory_mib=3072)
        assert request.containers == ("small", "big", "app")

    def test_sidecars_are_added(self) -> None:
        pod = make_pod().container("app").init_container("side", sidecar=True).init_container("init")
        for name in ("app", "side", "init"):
            pod.container_gpu_memory(name, limit="2Gi")
        assert share(pod).memory_mib == 4096
        assert share(pod.container_gpu_memory("init", limit="3Gi")).memory_mib == 5120

    @pytest.mark.parametrize("mode", names.COMPUTE_MODES)
    def test_compute_mode(self, mode: str) -> None:
        for pod in (make_pod().fraction("0.5"), make_pod().container_gpu_memory("main", limit="1Gi")):
            assert share(pod.compute_mode("main", mode)).compute_mode == mode

    def test_an_absent_mode_is_time_slicing(self) -> None:
        assert share(make_pod().fraction("0.5")).compute_mode == names.TIME_SLICING
        pod = make_pod().container("a").container("b").compute_mode("a", names.TIME_SLICING)
        pod.container_gpu_memory("a", limit="1Gi").container_gpu_memory("b", limit="1Gi")
        assert share(pod).compute_mode == names.TIME_SLICING

    def test_a_container_without_a_name_has_no_part(self) -> None:
        pod = make_pod().container("a").container_gpu_memory("a", limit="1Mi").build()
        pod["spec"]["containers"].append({"image": "x"})
        assert accepted(pod).share == Share(memory_mib=1)

    def test_container_name_may_repeat_one_of_the_named(self) -> None:
        pod = make_pod().container("a").container("b")
        pod.container_gpu_memory("b", limit="1Gi").container_name("b")
        assert accepted(pod).containers == ("b",)


class TestForm:
    """Rule 1: not of that form."""

    @pytest.mark.parametrize(
        "text",
        [
            "0",
            "1",
            "0.0",
            ".0",
            "0.000000000000000000",
            "1.0",
            "1.5",
            "00.5",
            "0.",
            ".",
            "",
            "-0.5",
            "+0.5",
            "0,5",
            " 0.5",
            "0.5 ",
            "0.5\n",
            "5e-1",
            "0.5f",
            "half",
            "50%",
            "1/2",
            "0.1234567890123456789",
            "٠.٥",
            "0.５",
            "nan",
        ],
    )
    def test_fraction(self, text: str) -> None:
        shown = text.replace("\n", "\\n")
        assert refused(make_pod().fraction(text)) == f'annotation gpu-fraction is "{shown}" but {FRACTION_RULE}'

    @pytest.mark.parametrize(
        "text",
        [
            "0",
            "000000000",
            "",
            "-1",
            "+1",
            "1.0",
            "4Gi",
            "1e3",
            " 1",
            "1 ",
            "1\n",
            "1000000000",
            "0x10",
            "1_0",
            "４",
            "²",
        ],
    )
    def test_memory(self, text: str) -> None:
        shown = text.replace("\n", "\\n")
        assert refused(make_pod().gpu_memory(text)) == f'annotation gpu-memory is "{shown}" but {MEMORY_RULE}'

    @pytest.mark.parametrize("text", ["0", "000", "", "-1", "+2", "1.0", "1000", "0001", " 1", "two", "1e1", "２"])
    def test_devices(self, text: str) -> None:
        sentence = refused(make_pod().fraction("0.5").num_devices(text))
        assert sentence == f'annotation gpu-fraction-num-devices is "{text}" but {DEVICES_RULE}'

    @pytest.mark.parametrize("text", ["0", "1", "1048575", "1023Ki", "-1Gi", "4GiB", "4 Gi", "", "abc", "1m", "٤Gi"])
    @pytest.mark.parametrize("kind", ["request", "limit"])
    def test_container_memory(self, kind: str, text: str) -> None:
        sentence = refused(make_pod().container_gpu_memory("main", **{kind: text}))
        assert sentence == f'annotation {key("main", f"gpu-memory.{kind}")} is "{text}" but {QUANTITY_RULE}'

    @pytest.mark.parametrize("text", ["", "Binpack", "pack", "spread "])
    def test_strategy(self, text: str) -> None:
        expected = f'annotation gpu-placement-strategy is "{text}" but must be one of {", ".join(names.STRATEGIES)}'
        assert refused(make_pod().strategy(text)) == expected

    @pytest.mark.parametrize(
        "annotation",
        [
            names.GPU_FRACTION,
            names.GPU_MEMORY,
            names.NUM_DEVICES,
            names.CONTAINER_NAME,
            names.PLACEMENT_STRATEGY,
        ]
        + [key("main", kind) for kind in ("gpu-memory.request", "gpu-memory.limit", "gpu-compute.mode")],
    )
    @pytest.mark.parametrize(
        ("value", "shown"),
        [(None, "null"), (1, "1"), (0.5, "0.5"), (True, "true"), ([], "a list"), ({"a": 1}, "an object")],
    )
    def test_values_that_are_not_text(self, annotation: str, value: object, shown: str) -> None:
        sentence = refused(make_pod().annotation(annotation, value))
        assert sentence == f"annotation {annotation} is {shown} but must be text"

    def test_a_long_value_is_cut(self) -> None:
        sentence = refused(make_pod().gpu_memory("9" * 250_000))
        assert sentence == f'annotation gpu-memory is "{"9" * 40}…" but {MEMORY_RULE}'

    def test_a_long_key_is_cut(self) -> None:
        assert len(refused(make_pod().container_gpu_memory("x" * 250_000, limit="1Gi"))) < 300

    @pytest.mark.parametrize("value", ["a\nb", "\ud800", "\x00"])
    def test_a_sentence_is_one_printable_line(self, value: str) -> None:
        assert refused(make_pod().gpu_memory(value)).isprintable()
        assert refused(make_pod().container_gpu_memory(value, limit="1Gi")).isprintable()


class TestTogether:
    """Rules 2 to 8."""

    def test_fraction_and_memory(self) -> None:
        pod = make_pod().fraction("0.5").gpu_memory(4096)
        assert refused(pod) == 'annotation gpu-memory is "4096" but must not stand together with gpu-fraction'

    @pytest.mark.parametrize("kind", ["request", "limit"])
    @pytest.mark.parametrize(("annotation", "value"), [("gpu-fraction", "0.5"), ("gpu-memory", "4096")])
    def test_two_dialects(self, annotation: str, value: str, kind: str) -> None:
        pod = make_pod().annotation(annotation, value).container_gpu_memory("main", **{kind: "4Gi"})
        where = key("main", f"gpu-memory.{kind}")
        assert refused(pod) == f'annotation {where} is "4Gi" but must not stand together with {annotation}'

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            ("gpu-fraction-num-devices", "2"),
            ("gpu-fraction-container-name", "main"),
            ("gpu-fraction-container-name", "ghost"),
            (key("main", "gpu-compute.mode"), "time-slicing"),
            (key("ghost", "gpu-compute.mode"), "time-slicing"),
            (key("main", "gpu-compute.mode"), "warp"),
        ],
    )
    @pytest.mark.parametrize("gpus", [0, 1])
    def test_modifiers_without_a_share(self, gpus: int, annotation: str, value: str) -> None:
        pod = make_pod().gpus(gpus).annotation(annotation, value)
        assert refused(pod) == f'annotation {annotation} is "{value}" but {NO_SHARE}'

    def test_a_mode_for_a_container_without_a_share(self) -> None:
        for pod in (make_pod().fraction("0.5"), make_pod().container_gpu_memory("a", limit="1Gi")):
            pod.container("a").container("b").compute_mode("b", "time-slicing")
            where = key("b", "gpu-compute.mode")
            assert refused(pod) == f'annotation {where} is "time-slicing" but that container has no GPU share'

    def test_a_container_that_does_not_exist(self) -> None:
        pod = make_pod().fraction("0.5").container_name("ghost")
        assert refused(pod) == f'annotation gpu-fraction-container-name is "ghost" but {NO_CONTAINER}'

    def test_an_empty_container_name_is_no_container(self) -> None:
        assert refused(make_pod().fraction("0.5").container_name("")).endswith(NO_CONTAINER)

    def test_ephemeral_containers_do_not_count(self) -> None:
        pod = make_pod().spec(ephemeralContainers=[{"name": "debug"}]).fraction("0.5").container_name("debug")
        assert refused(pod).endswith(NO_CONTAINER)

    @pytest.mark.parametrize("name", ["ghost", "", "main.x", "Main", "main "])
    def test_a_named_container_that_does_not_exist(self, name: str) -> None:
        where = key(name, "gpu-memory.limit")
        assert refused(make_pod().annotation(where, "1Gi")) == f'annotation {where} is "1Gi" but {NO_CONTAINER}'
        pod = make_pod().fraction("0.5").compute_mode(name, "time-slicing")
        assert refused(pod).endswith(f'is "time-slicing" but {NO_CONTAINER}')

    def test_a_key_without_room_for_a_name(self) -> None:
        where = "nvidia.com/container.gpu-memory.limit"
        assert refused(make_pod().annotation(where, "1Gi")) == f'annotation {where} is "1Gi" but {NO_CONTAINER}'

    def test_container_name_beside_the_other_dialect(self) -> None:
        pod = make_pod().container("a").container("b").container_gpu_memory("a", limit="1Gi").container_name("b")
        why = "no annotation gives GPU memory to that container"
        assert refused(pod) == f'annotation gpu-fraction-container-name is "b" but {why}'

    @pytest.mark.parametrize("containers", [None, [], [{}], [{"name": None}], [{"name": 5}]])
    def test_a_pod_without_containers(self, containers: object) -> None:
        pod = make_pod().fraction("0.5").build()
        pod["spec"]["containers"] = containers
        assert refused(pod) == 'annotation gpu-fraction is "0.5" but the pod has no container'

    @pytest.mark.parametrize("resource", [GPU, "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb"])
    @pytest.mark.parametrize("init", [False, True])
    def test_a_share_beside_a_gpu_resource_in_any_container(self, init: bool, resource: str) -> None:
        limits = {resource: "1"}
        for pod in (make_pod().fraction("0.5"), make_pod().container_gpu_memory("a", limit="1Gi")):
            pod.container("a")
            pod.init_container("x", limits=limits) if init else pod.container("x", limits=limits)
            assert refused(pod).endswith(f"but must not stand together with the GPU resource {resource}")

    def test_an_unknown_mode(self) -> None:
        for pod in (make_pod().fraction("0.5"), make_pod().container_gpu_memory("main", limit="1Gi")):
            where = key("main", "gpu-compute.mode")
            rule = "must be one of time-slicing, sm-sharing"
            assert refused(pod.compute_mode("main", "warp")) == f'annotation {where} is "warp" but {rule}'

    def test_containers_of_different_modes(self) -> None:
        pod = make_pod().container("a").container("b").compute_mode("b", "sm-sharing")
        pod.container_gpu_memory("a", limit="1Gi").container_gpu_memory("b", limit="1Gi")
        assert "must have the same compute mode" in refused(pod)
        assert "must have the same compute mode" in refused(pod.compute_mode("a", "time-slicing"))
        assert share(pod.compute_mode("a", "sm-sharing")).compute_mode == "sm-sharing"

    @pytest.mark.parametrize(("request_", "limit"), [("2Gi", "1Gi"), ("1048577", "1Mi"), ("1.2Mi", "1.1Mi")])
    def test_a_request_above_the_limit(self, request_: str, limit: str) -> None:
        pod = make_pod().container_gpu_memory("main", request=request_, limit=limit)
        where = key("main", "gpu-memory.request")
        assert refused(pod) == f'annotation {where} is "{request_}" but must not be above the limit "{limit}"'

    def test_a_request_equal_to_the_limit_in_another_spelling(self) -> None:
        assert share(make_pod().container_gpu_memory("main", request="1024Mi", limit="1Gi")).memory_mib == 1024


def _form(pod: PodBuilder) -> None:
    pod.num_devices("0")


def _both(pod: PodBuilder) -> None:
    pod.fraction("0.5").gpu_memory(1)


def _dialects(pod: PodBuilder) -> None:
    pod.fraction("0.5").container_gpu_memory("a", limit="1Gi")


def _idle_mode(pod: PodBuilder) -> None:
    pod.compute_mode("idle", "time-slicing")


def _ghost(pod: PodBuilder) -> None:
    pod.container_gpu_memory("ghost", limit="1Gi")


def _gpu(pod: PodBuilder) -> None:
    pod.container("g", limits={GPU: "1"})


def _mode(pod: PodBuilder) -> None:
    pod.compute_mode("a", "warp")


def _above(pod: PodBuilder) -> None:
    pod.container_gpu_memory("a", request="2Gi", limit="1Gi")


Break = Callable[[PodBuilder], None]
IN_ORDER: dict[Break, str] = {
    _form: DEVICES_RULE,
    _both: "together with gpu-fraction",
    _dialects: "together with gpu-fraction",
    _idle_mode: "that container has no GPU share",
    _ghost: NO_CONTAINER,
    _gpu: "the GPU resource nvidia.com/gpu",
    _mode: "must be one of time-slicing",
    _above: "above the limit",
}


@pytest.mark.parametrize(("earlier", "later"), list(itertools.combinations(IN_ORDER, 2)))
def test_the_first_broken_rule_speaks(earlier: Break, later: Break) -> None:
    """Every pair of broken rules, with the annotations written in both orders."""
    sentences = set()
    for rules in ((earlier, later), (later, earlier)):
        pod = make_pod().container("a").container("idle")
        if later in (_both, _dialects):
            pod.fraction("0.5")
        else:
            pod.container_gpu_memory("a", limit="1Gi")
        for rule in rules:
            rule(pod)
        sentences.add(refused(pod))
    assert len(sentences) == 1, "the sentence is constant for a pod"
    assert IN_ORDER[earlier] in sentences.pop()


def test_both_speaks_before_the_two_dialects() -> None:
    pod = make_pod().fraction("0.5").gpu_memory(1).container_gpu_memory("main", limit="1Gi")
    assert refused(pod).startswith("annotation gpu-memory ")


class TestQuantitiesOfResources:
    @pytest.mark.parametrize("value", ["-1", "500m", "abc", "", "-1e30", True, [], float("nan")])
    @pytest.mark.parametrize("resource", [GPU, "nvidia.com/mig-1g.10gb"])
    @pytest.mark.parametrize("kind", ["requests", "limits"])
    def test_a_gpu_quantity_that_makes_no_sense_is_refused_always(
        self, kind: str, resource: str, value: object
    ) -> None:
        """HAMi: a negative gpumem or count passed as if no GPU was asked for."""
        pod = make_pod().container("main", **{kind: {resource: value}})
        assert refused(pod).startswith(f"container main asks for {resource}: ")

    @pytest.mark.parametrize("resource", ["cpu", "memory"])
    def test_so_are_cpu_and_memory(self, resource: str) -> None:
        pod = make_pod().container("main", requests={resource: "lots"})
        assert refused(pod) == f'container main asks for {resource}: "lots" is not a quantity'

    def test_a_number_too_long_to_print_is_named(self) -> None:
        """YAML has integers of any length, and Python refuses to print those of more than 4,300 digits."""
        pod = make_pod().container("main", limits={GPU: -(10**5000)})
        assert refused(pod) == f"container main asks for {GPU}: a very large integer is negative"

    def test_an_annotation_that_is_not_of_its_form_speaks_first(self) -> None:
        pod = make_pod().fraction("2").container(limits={GPU: "-1"})
        assert refused(pod).endswith(FRACTION_RULE)

    def test_a_quantity_that_makes_no_sense_speaks_before_the_other_rules(self) -> None:
        pod = make_pod().fraction("0.5").gpu_memory(1).container("main", limits={GPU: "-1"})
        assert refused(pod).startswith("container main asks for ")


class TestMalformedPods:
    @pytest.mark.parametrize(
        "pod",
        [
            None,
            1,
            "pod",
            [],
            {"metadata": 1},
            {"metadata": {"annotations": ["gpu-fraction"]}},
            {"spec": "x"},
            {"spec": {"containers": {"a": 1}}},
            {"spec": {"initContainers": [None]}},
        ],
    )
    def test_are_refused_not_read_as_asking_for_nothing(self, pod: object) -> None:
        assert refused(pod).endswith((" but must be an object", " but must be a list"))

    @pytest.mark.parametrize(
        "pod",
        [
            {},
            {"metadata": None, "spec": None},
            {"metadata": {"annotations": None, "labels": None}},
            {"metadata": {"annotations": {5: "x", None: 1}}},
            {"spec": {"containers": None}},
        ],
    )
    def test_null_and_absent_are_nothing(self, pod: dict[str, Any]) -> None:
        assert accepted(pod) == GpuRequest(None, {})


class TestShare:
    @pytest.mark.parametrize(
        ("fraction", "memory", "mib"),
        [("0.5", 81559, 40779), ("0.5", 1, 1), ("0.999999999999999999", 81559, 81558)],
    )
    def test_a_fraction_is_rounded_down_but_never_to_nothing(self, fraction: str, memory: int, mib: int) -> None:
        assert Share(fraction=Fraction(fraction)).mib_of(memory) == mib

    @pytest.mark.parametrize(("fraction", "memory", "mib"), [("0.29", 100, 29), ("0.57", 100, 57), ("0.07", 100, 7)])
    def test_no_float_comes_near_it(self, fraction: str, memory: int, mib: int) -> None:
        """In floats 0.29 × 100 is 28.999…, which is 28 MiB."""
        assert Share(fraction=Fraction(fraction)).mib_of(memory) == mib

    def test_memory_is_itself_whatever_the_gpu_has(self) -> None:
        assert Share(memory_mib=4096).mib_of(1024) == 4096

    @pytest.mark.parametrize("given", [{}, {"fraction": Fraction(1, 2), "memory_mib": 1}])
    def test_exactly_one_of_both(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="either"):
            Share(**given)


class TestShape:
    def test_names_do_not_matter(self) -> None:
        one, other = (
            accepted(make_pod(name).container(name, requests={"cpu": "1"}).fraction("0.5")) for name in ("a", "b")
        )
        assert one.shape == other.shape
        assert one != other
        assert hash(one.shape) == hash(other.shape)

    def test_what_placement_looks_at_does(self) -> None:
        base = {"cpu": "1", "memory": "1Gi"}
        pods = [
            make_pod().container(requests=base),
            make_pod().container(requests=base | {"cpu": "2"}),
            make_pod().container(requests=base | {"memory": "2Gi"}),
            make_pod().container(requests=base | {GPU: "1"}),
            make_pod().container(requests=base).fraction("0.5"),
            make_pod().container(requests=base).fraction("0.25"),
            make_pod().container(requests=base).gpu_memory(1),
            make_pod().container(requests=base).fraction("0.5").num_devices(2),
            make_pod().container(requests=base).fraction("0.5").compute_mode("main", "sm-sharing"),
            make_pod().container(requests=base).fraction("0.5").strategy("spread"),
        ]
        assert len({accepted(pod).shape for pod in pods}) == len(pods)

    def test_requests_are_hashable(self) -> None:
        pod = make_pod().fraction("0.5").build()
        assert len({accepted(pod), accepted(pod)}) == 1


class TestBugsOfPeers:
    def test_hami_1942_init_containers_are_maxed_not_summed(self) -> None:
        """HAMi#1942: init requests were added to those of the containers that run after them.

        Users saw pods whose init container used the GPU stay pending on a card with enough room, and quotas
        charged for memory that is never in use at the same time.
        """
        pod = make_pod().container("train", limits={GPU: "1"}).init_container("fetch", limits={GPU: "1"})
        assert accepted(pod).whole_gpus == 1
        pod = make_pod().container("train").init_container("warm-up").init_container("check")
        pod.container_gpu_memory("train", limit="8Gi").container_gpu_memory("warm-up", limit="6Gi")
        pod.container_gpu_memory("check", limit="7Gi")
        assert share(pod).memory_mib == 8 * 1024

    def test_hami_2622_every_container_counts(self) -> None:
        """HAMi#2622: a pod of several GPU containers was counted with too few slots.

        Users saw more pods on a card than it has room for.
        """
        pod = make_pod().container("a", limits={GPU: "1"}).container("b", limits={GPU: "2"})
        assert accepted(pod.init_container("proxy", limits={GPU: "1"}, sidecar=True)).whole_gpus == 4
        pod = make_pod().container("a").container("b").init_container("proxy", sidecar=True)
        for name in ("a", "b", "proxy"):
            pod.container_gpu_memory(name, limit="2Gi")
        assert share(pod).memory_mib == 6 * 1024
        assert accepted(pod).containers == ("proxy", "a", "b")
