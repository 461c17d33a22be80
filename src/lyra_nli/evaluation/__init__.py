"""Evaluation: metrics, the gate's verdict, and its report."""
