locals {
  name   = var.suffix == "" ? "dcm2bq" : "dcm2bq-${var.suffix}"
  labels = merge(var.labels, { application = local.name })

  # The same in the alphabet of datasets and roles.
  snake_name = replace(local.name, "-", "_")

  # BigQuery has the multi-regions US and EU, and regions; a bucket can also be in a dual-region. Another
  # bucket than `dicom` has no say: adding one must not move the dataset.
  bucket_location  = lookup(local.bucket_locations, "dicom", "")
  dataset_location = var.dataset.existing ? data.google_bigquery_dataset.existing[0].location : coalesce(var.dataset.location, contains(["us", "eu"], local.bucket_location) ? upper(local.bucket_location) : var.region)
}

# The number of the project names the service agents, and shows which project a bucket belongs to.
# The id comes from the API's resource, so that this waits until the API is enabled.
data "google_project" "this" {
  project_id = split("/", google_project_service.this["cloudresourcemanager.googleapis.com"].id)[0]
}

# The provider's own token, for the steps that no resource can do: no other tool needs a login. An
# ephemeral value is in no state and no plan.
ephemeral "google_client_config" "this" {}
