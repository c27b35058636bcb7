"""The graph rewriter: finds merge points in an ONNX graph, inserts merging there and aligns what follows."""
