"""South America Soybean, 2021."""
