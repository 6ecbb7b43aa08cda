"""South African crop types, Western Cape, 2017."""
