"""The files in `examples/serving` start `capt serve` with options that exist, and probe paths that exist."""

import json
import re
from pathlib import Path

import yaml

from schemas.options.serving import Serve

SERVING = Path(__file__).parents[2] / "examples" / "serving"


def test_the_manifest_probes_the_server_of_the_image() -> None:
    deployment, service = yaml.safe_load_all((SERVING / "kubernetes.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", (SERVING / "Dockerfile").read_text(), re.MULTILINE)
    program, command, *arguments = json.loads(entry)
    assert (program, command) == ("capt", "serve")
    run, *others = container["args"]
    named = dict(zip(*[iter(arguments + others)] * 2, strict=True))
    options = Serve.parse({"runs": [run], **{name.removeprefix("--"): value for name, value in named.items()}})
    assert (options.host, options.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    assert options.allowed_host == (service["metadata"]["name"],)
    assert options.api_key_file in {one["mountPath"] for one in container["volumeMounts"]}
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")} == {
        "/healthz"
    }
    mounts = {one["name"] for one in container["volumeMounts"]}
    assert mounts == {one["name"] for one in deployment["spec"]["template"]["spec"]["volumes"]}
