"""The graph in files that others read: ONNX, and torch.export's .pt2.

Neither holds a path of this machine, and the same run gives the same bytes.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from lens_hpc.errors import UserError
from lens_hpc.exporting.graph import ScoringGraph
from lens_hpc.layout import DESCRIPTION

INPUTS = ("images", "features")
OUTPUT = "logits"

Inputs = tuple[torch.Tensor, ...]

LARGEST_DIFFERENCE = 1e-4
"""Of a logit in ONNX Runtime and in PyTorch; of logits above 1, relative to them."""


def trace(graph: ScoringGraph, inputs: Inputs) -> ExportedProgram:
    """Return the graph as torch.export has it, for any number of cutouts.

    Raises UserError for a model that cannot be traced.
    """
    batch = Dim("batch")
    any_number = tuple({0: batch} for _ in inputs)
    with _failures_named("torch.export"), _without_fused_attention(graph):
        program = torch.export.export(graph, inputs, dynamic_shapes=any_number)

    # Where each line of code lay is nobody's business.
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def write_torch(file: Path, program: ExportedProgram, description: Mapping[str, Any]) -> None:
    """Write a program with its description, as torch.export.load(file, extra_files=...) reads
    it."""
    text = json.dumps(description, indent=1)
    # torch's own writer does not say why a disk refuses.
    written = io.BytesIO()
    torch.export.save(program, written, extra_files={DESCRIPTION: text})
    file.write_bytes(written.getbuffer())


def make_onnx(program: ExportedProgram, inputs: Inputs, description: Mapping[str, str]) -> bytes:
    """Return a program as ONNX, with its description in metadata_props.

    Raises UserError for what ONNX has no operator for.
    """
    import onnx  # installed for export alone

    with _failures_named("ONNX"), warnings.catch_warnings(action="ignore"):
        exported = torch.onnx.export(
            program,
            inputs,
            input_names=INPUTS[: len(inputs)],
            output_names=[OUTPUT],
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto

    # What tells of each operator where in the code it comes from.
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.helper.set_model_props(model, dict(description))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def check_onnx(model: bytes, graph: ScoringGraph, inputs: Inputs) -> None:
    """Raise UserError unless ONNX Runtime gives the same logits of some inputs as PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    arrays = {name: one.numpy() for name, one in zip(INPUTS, inputs, strict=False)}
    (found,) = session.run([OUTPUT], arrays)
    with torch.inference_mode():
        wanted = graph(*inputs).numpy()

    if not np.allclose(found, wanted, LARGEST_DIFFERENCE, LARGEST_DIFFERENCE, equal_nan=True):
        difference = np.abs(found - wanted).max()
        raise UserError(
            f"the model's logits in ONNX Runtime differ by up to {difference:.2g} from those in "
            "PyTorch, so that no file is written; leave ONNX out with formats=[torch]"
        )


@contextmanager
def _failures_named(kind: str) -> Iterator[None]:
    """Raise UserError when the model within cannot be exported."""
    try:
        yield
    except ModuleNotFoundError:
        raise  # told with the extra that brings it
    except Exception as error:  # exporters fail in ways of their own
        first_sentence = str(error).strip().partition("\n")[0].partition(". ")[0]
        others = "formats=[torch] or formats=[]" if kind == "ONNX" else "formats=[]"
        raise UserError(
            f"the model cannot be exported by {kind} ({type(error).__name__}: {first_sentence}); "
            f"leave that out with {others}"
        ) from error


@contextmanager
def _without_fused_attention(graph: ScoringGraph) -> Iterator[None]:
    """Let timm's models write their attention out meanwhile.

    The strides of the fused one's result are other ones in ONNX than in PyTorch, where it has a
    mask, and no reshape fits both.
    """
    fused: list[Any] = [one for one in graph.modules() if getattr(one, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True
