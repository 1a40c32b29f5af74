"""The reader of scikit-learn's estimators and pipelines."""
