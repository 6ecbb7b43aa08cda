"""AgriFieldNet, northern India, 2021."""
