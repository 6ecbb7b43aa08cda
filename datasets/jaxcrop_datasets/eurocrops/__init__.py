"""EuroCrops, declared fields of the European Union, 2018-2021."""
