"""Links that move bytes: host memory, any accelerator, a throttle."""
