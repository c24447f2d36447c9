"""Where a step function comes from: cells, adapters and training."""
