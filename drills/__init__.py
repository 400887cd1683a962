"""Longer exercises: the defect matrix, and later fault schedules and soak runs."""
