"""`dcm2bq try`, on the local stack and against a server that plays Google's REST APIs."""
