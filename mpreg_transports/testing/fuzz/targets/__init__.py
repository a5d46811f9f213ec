"""One module for each target, each with `harness(data: bytes) -> None`, which raises only on a defect."""
