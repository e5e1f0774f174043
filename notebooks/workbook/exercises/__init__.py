"""All exercises, in the order of the notebooks."""

from workbook.exercises import experts, faces, flux, gating, stream, tokens, words

NOTEBOOKS = (faces, tokens, words, flux, stream, experts, gating)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
