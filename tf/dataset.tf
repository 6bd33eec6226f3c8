# Tables, views and table functions are those of dcm2bq/schema, which `dcm2bq init` reads as well.
locals {
  schema = "${local.source_root}/dcm2bq/schema"
  names = {
    project     = var.project_id
    dataset     = google_bigquery_dataset.dicom.dataset_id
    instances   = var.dataset.instances_table_id
    dead_letter = var.dataset.dead_letter_table_id
    filled      = file("${local.schema}/filled.sql")
    hides       = file("${local.schema}/hides.sql")
    supersedes  = file("${local.schema}/supersedes.sql")
    newest      = file("${local.schema}/newest.sql")
    closes      = file("${local.schema}/closes.sql")
  }
  tables          = { for name in ["instances", "dead_letter"] : name => jsondecode(templatefile("${local.schema}/${name}.json", local.names)) }
  views           = { for name in ["instances_live", "dead_letters"] : name => jsondecode(templatefile("${local.schema}/${name}.json", local.names)) }
  aggregates      = { for name in ["studies", "series", "patients", "dismissed_letters"] : name => jsondecode(templatefile("${local.schema}/${name}.json", local.names)) }
  table_functions = { for name in ["study", "ingested_between", "changes_between"] : name => jsondecode(templatefile("${local.schema}/${name}.json", local.names)) }
}

resource "google_bigquery_dataset" "dicom" {
  project                    = var.project_id
  dataset_id                 = coalesce(var.dataset.id, join("_", compact(["dicom", replace(var.suffix, "-", "_")])))
  location                   = local.dataset_location
  description                = "Headers of the DICOM objects in gs://${local.bucket}, by dcm2bq"
  labels                     = local.labels
  delete_contents_on_destroy = false

  dynamic "default_encryption_configuration" {
    for_each = local.kms_key

    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]
}

resource "google_bigquery_table" "table" {
  #checkov:skip=CKV_GCP_80: the dataset sets the key of its tables: kms_key
  #checkov:skip=CKV_GCP_121: on by default; dataset.deletion_protection takes it off before a tear-down
  for_each = local.tables

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.dicom.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = merge(local.labels, each.key == "instances" ? local.privacy_label : {})
  schema              = jsonencode(each.value.schema.fields)
  clustering          = try(each.value.clustering.fields, null)
  deletion_protection = var.dataset.deletion_protection

  time_partitioning {
    type  = each.value.timePartitioning.type
    field = each.value.timePartitioning.field
  }

  lifecycle {
    # The label tells by which options the rows that are there were made: it stays what it was.
    ignore_changes = [labels["dcm2bq_privacy"]]

    postcondition {
      condition     = each.key != "instances" || lookup(self.labels, "dcm2bq_privacy", null) == lookup(local.privacy_label, "dcm2bq_privacy", null)
      error_message = "The table ${self.table_id} holds rows made by other privacy options: use another dataset, or those options."
    }
  }
}

resource "google_bigquery_table" "view" {
  #checkov:skip=CKV_GCP_80: views hold nothing
  #checkov:skip=CKV_GCP_121: views hold nothing
  for_each = local.views

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.dicom.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = local.labels
  schema              = jsonencode(each.value.schema.fields)
  deletion_protection = false # nothing is lost with a view

  view {
    query          = templatefile("${local.schema}/${each.key}.sql", local.names)
    use_legacy_sql = false
  }

  depends_on = [google_bigquery_table.table]
}

# Views over views.
resource "google_bigquery_table" "aggregate" {
  #checkov:skip=CKV_GCP_80: views hold nothing
  #checkov:skip=CKV_GCP_121: views hold nothing
  for_each = local.aggregates

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.dicom.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = local.labels
  schema              = jsonencode(each.value.schema.fields)
  deletion_protection = false

  view {
    query          = templatefile("${local.schema}/${each.key}.sql", local.names)
    use_legacy_sql = false
  }

  depends_on = [google_bigquery_table.view]
}

resource "google_bigquery_routine" "table_function" {
  for_each = local.table_functions

  project         = var.project_id
  dataset_id      = google_bigquery_dataset.dicom.dataset_id
  routine_id      = each.value.routineReference.routineId
  routine_type    = each.value.routineType
  language        = each.value.language
  description     = each.value.description
  definition_body = templatefile("${local.schema}/${each.key}.sql", local.names)

  dynamic "arguments" {
    for_each = each.value.arguments

    content {
      name      = arguments.value.name
      data_type = jsonencode(arguments.value.dataType)
    }
  }

  depends_on = [google_bigquery_table.table]
}
