"""What `tools/fuzz.py` is made of: how inputs are made (bytes, protos, graphs), run, judged and shrunk."""
