"""Northeast China Crop Map, 2019."""
