"""All exercises, in the order of the notebooks."""

from workbook.exercises import experts, gating, tokens

EXERCISES = {exercise.name: exercise for notebook in (tokens, experts, gating) for exercise in notebook.EXERCISES}
