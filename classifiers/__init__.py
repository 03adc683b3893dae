"""The classifiers: from the pixels of an image to what a viewer would perceive in it."""
