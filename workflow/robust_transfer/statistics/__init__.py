"""Accuracies, intervals, choices and the regression behind probes: functions of arrays alone."""
