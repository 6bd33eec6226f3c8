"""The trial of a deployment: what `dcm2bq try` uploads, waits for and looks at."""
