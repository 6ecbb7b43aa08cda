"""What a frozen backbone sees: kept for each chip, and on its way to the devices."""
