"""Tracking beside tckgen and DIPY."""
