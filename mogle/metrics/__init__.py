"""What is measured: whether a picture follows its mask and its sentence, and how close a set is to real ones."""
