"""Records to batches: bands, reading, augmentation on the device, and synthetic regions."""
