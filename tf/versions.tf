# The providers take the project from each resource, so that this folder serves both as a root module
# and as a module of someone else's configuration.

terraform {
  required_version = ">= 1.11" # ephemeral resources, and validations that refer to other variables

  required_providers {
    # 7.45: earlier versions can send `access` back with an update of the dataset, which would undo
    # grants made elsewhere.
    google = {
      source  = "hashicorp/google"
      version = ">= 7.45, < 9"
    }
    # Only for google_project_service_identity, which the other provider lacks.
    google-beta = {
      source  = "hashicorp/google-beta"
      version = ">= 7.45, < 9"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.7"
    }
    time = {
      source  = "hashicorp/time"
      version = "~> 0.13"
    }
  }
}
