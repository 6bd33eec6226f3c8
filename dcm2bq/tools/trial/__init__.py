"""The trial of a deployment, `dcm2bq try`: what it checks, uploads and waits for."""
