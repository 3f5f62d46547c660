"""Object detection: tasks, data sets, detectors, boxes and the metric."""
