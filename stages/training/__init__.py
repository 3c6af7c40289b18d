"""What every train-* stage shares and no model knows: seeds, device, batches, the loop."""
