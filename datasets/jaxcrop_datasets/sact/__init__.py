"""South African Crop Type, Western Cape, 2017."""
