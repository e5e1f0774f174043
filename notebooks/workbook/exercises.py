"""All exercises, in the order of the notebooks."""

from workbook import experts, faces, gating, tokens

EXERCISES = {
    exercise.name: exercise for notebook in (faces, tokens, experts, gating) for exercise in notebook.EXERCISES
}
