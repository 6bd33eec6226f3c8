# Tables, views and table functions are those of dcm2bq/schema, which `dcm2bq init` reads too.
locals {
  schema = "${local.source_root}/dcm2bq/schema"
  # Each object's files without their suffixes, by its name: studies = "live/studies".
  files      = { for file in fileset(local.schema, "**/*.json") : trimsuffix(basename(file), ".json") => trimsuffix(file, ".json") }
  view_names = [for name, file in local.files : name if try(jsondecode(file("${local.schema}/${file}.json")).type, "") == "VIEW"]
  names = merge(
    { for file in fileset(local.schema, "**/*.sql") : trimsuffix(basename(file), ".sql") => file("${local.schema}/${file}") if !contains(values(local.files), trimsuffix(file, ".sql")) },
    {
      project     = var.project_id
      dataset     = local.dataset_id
      instances   = var.dataset.instances_table_id
      dead_letter = var.dataset.dead_letter_table_id
    },
  )

  # Views of the folder `analysis` read metadata of this shape only, as in schema.left_out of dcm2bq.
  analysis_is_possible = try(var.config.jsonOutput.format, "flat") == "flat" && try(tobool(var.config.jsonOutput.useCommonNames), true) && !try(tobool(var.config.jsonOutput.useArrayWithSingleValue), false)
  left_out             = [for name, file in local.files : name if startswith(file, "analysis/") && !local.analysis_is_possible]

  resources       = { for name, file in local.files : name => jsondecode(templatefile("${local.schema}/${file}.json", local.names)) if !contains(local.left_out, name) }
  queries         = { for name, file in local.files : name => templatefile("${local.schema}/${file}.sql", local.names) if fileexists("${local.schema}/${file}.sql") }
  tables          = { for name, resource in local.resources : name => resource if startswith(local.files[name], "tables/") }
  views           = { for name, resource in local.resources : name => resource if contains(local.view_names, name) }
  table_functions = { for name, resource in local.resources : name => resource if can(resource.routineReference) }

  # A view can be created after those that it reads. Resources of one `for_each` cannot wait for each
  # other, so there is one for each level: views over tables, views over these, and so on.
  reads = { for name in keys(local.views) : name => setintersection(
    keys(local.views),
    flatten(regexall("\\$\\{dataset\\}\\.(\\w+)`", file("${local.schema}/${local.files[name]}.sql"))),
  ) }
  level_0 = [for name, read in local.reads : name if length(read) == 0]
  upto_1  = [for name, read in local.reads : name if length(setsubtract(read, local.level_0)) == 0]
  upto_2  = [for name, read in local.reads : name if length(setsubtract(read, local.upto_1)) == 0]
  upto_3  = [for name, read in local.reads : name if length(setsubtract(read, local.upto_2)) == 0]
  level_1 = setsubtract(local.upto_1, local.level_0)
  level_2 = setsubtract(local.upto_2, local.upto_1)
  level_3 = setsubtract(local.upto_3, local.upto_2)

  created_views = merge(google_bigquery_table.view, google_bigquery_table.aggregate, google_bigquery_table.aggregate_2, google_bigquery_table.aggregate_3)
}

# Without `access` BigQuery would give every viewer of the project read access to every row, and every
# editor write access. These are the grants of a new dataset; the grants of dataset.readers, and those
# that others make, are added to them and stay.
resource "google_bigquery_dataset" "dicom" {
  count = var.dataset.existing ? 0 : 1

  project                    = var.project_id
  dataset_id                 = coalesce(var.dataset.id, join("_", compact(["dicom", replace(var.suffix, "-", "_")])))
  location                   = local.dataset_location
  description                = "Headers of the DICOM objects in ${local.all_buckets}, by dcm2bq"
  labels                     = local.labels
  max_time_travel_hours      = var.dataset.time_travel_hours
  storage_billing_model      = var.dataset.storage_billing
  delete_contents_on_destroy = false

  access {
    role          = "OWNER"
    special_group = "projectOwners"
  }

  dynamic "default_encryption_configuration" {
    for_each = local.kms_key

    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  lifecycle {
    ignore_changes = [access, description]
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

# The dataset of another deployment of this project, which owns it: it creates and updates the tables and
# views. This one writes to them.
data "google_bigquery_dataset" "existing" {
  count = var.dataset.existing ? 1 : 0

  project    = var.project_id
  dataset_id = var.dataset.id
}

locals {
  dataset_id        = one(concat(google_bigquery_dataset.dicom[*].dataset_id, data.google_bigquery_dataset.existing[*].dataset_id))
  dataset_access    = flatten([google_bigquery_dataset.dicom[*].access, data.google_bigquery_dataset.existing[*].access])
  dead_letter_table = var.dataset.existing ? var.dataset.dead_letter_table_id : google_bigquery_table.table["dead_letter"].table_id
}

check "dataset_is_closed" {
  assert {
    condition     = !anytrue([for entry in local.dataset_access : contains(["projectReaders", "projectWriters", "allAuthenticatedUsers"], entry.special_group == null ? "" : entry.special_group)])
    error_message = "Every viewer or editor of the project can read the dataset ${local.dataset_id}. Close it: docs/DEPLOY.md, \"Who can read the dataset\"."
  }
}

# Terraform makes the tables, and does not change columns or labels of one that exists: the provider would
# drop each column that is not in `schema`, past deletion_protection, and remove each policy tag; it
# would set the privacy label of an imported table. A step adds what is missing.
resource "google_bigquery_table" "table" {
  #checkov:skip=CKV_GCP_80: the dataset's default key encrypts its tables: kms_key
  #checkov:skip=CKV_GCP_121: on by default; dataset.deletion_protection switches it off before a tear-down
  for_each = { for name, table in local.tables : name => table if !var.dataset.existing }

  project                      = var.project_id
  dataset_id                   = local.dataset_id
  table_id                     = each.value.tableReference.tableId
  description                  = each.value.description
  labels                       = merge(local.labels, each.key == "instances" ? local.privacy_label : {})
  schema                       = jsonencode(local.columns[each.key])
  clustering                   = try(each.value.clustering.fields, null)
  deletion_protection          = var.dataset.deletion_protection
  ignore_auto_generated_schema = true # also where the state is older than a column: saved plans, -refresh=false

  dynamic "time_partitioning" {
    for_each = [for name, value in each.value : value if name == "timePartitioning"]

    content {
      type  = time_partitioning.value.type
      field = time_partitioning.value.field
    }
  }

  lifecycle {
    # The label dcm2bq_privacy is the fingerprint of the options that made the existing rows: it stays
    # what it was. The step sets the other labels.
    ignore_changes = [schema, description, labels]

    precondition {
      condition     = each.key != "instances" || length(setsubtract(keys(var.dataset.policy_tags), [for column in each.value.schema.fields : column.name])) == 0
      error_message = "dataset.policy_tags names columns that the table does not have: ${join(", ", setsubtract(keys(var.dataset.policy_tags), [for column in each.value.schema.fields : column.name]))}."
    }
    # effective_labels has the label of an imported table too, whose `labels` are empty.
    postcondition {
      condition     = each.key != "instances" || lookup(merge(self.labels, self.effective_labels), "dcm2bq_privacy", null) == lookup(local.privacy_label, "dcm2bq_privacy", null)
      error_message = "The table ${self.table_id} holds rows made by other privacy options: use another dataset, or those options."
    }
  }
}

locals {
  columns = { for name, table in local.tables : name => [
    for column in table.schema.fields : merge(column, contains(["instances", "objects"], name) && contains(keys(var.dataset.policy_tags), column.name) ? {
      policyTags = { names = [var.dataset.policy_tags[column.name]] }
    } : {})
  ] }
}

# Adds the columns that a table lacks, and sets labels and the policy tags of dataset.policy_tags. It
# removes nothing, and leaves descriptions, tags and labels of others alone.
resource "terraform_data" "columns" {
  for_each = { for name, table in local.tables : name => table if !var.dataset.existing }

  triggers_replace = {
    table   = "projects/${google_bigquery_table.table[each.key].project}/datasets/${google_bigquery_table.table[each.key].dataset_id}/tables/${google_bigquery_table.table[each.key].table_id}"
    columns = sha256(jsonencode(local.columns[each.key]))
    labels  = local.labels
  }

  provisioner "local-exec" {
    interpreter = [var.python]
    command     = "${path.module}/steps/columns.py"
    environment = {
      DCM2BQ_TOKEN   = ephemeral.google_client_config.this.access_token
      DCM2BQ_TABLE   = self.triggers_replace.table
      DCM2BQ_COLUMNS = jsonencode(local.columns[each.key])
      DCM2BQ_LABELS  = jsonencode(local.labels)
    }
  }
}

# Rows of other privacy options, or without a column of this release, must not reach the tables of an
# existing dataset: a step reads them, and ends the apply. It changes nothing.
resource "terraform_data" "existing_table" {
  for_each = { for name, table in local.tables : name => table if var.dataset.existing }

  triggers_replace = {
    table   = "projects/${var.project_id}/datasets/${local.dataset_id}/tables/${each.value.tableReference.tableId}"
    columns = sha256(jsonencode(local.columns[each.key]))
    privacy = each.key == "instances" ? lookup(local.privacy_label, "dcm2bq_privacy", "") : ""
  }

  provisioner "local-exec" {
    interpreter = [var.python]
    command     = "${path.module}/steps/existing_table.py"
    environment = {
      DCM2BQ_TOKEN   = ephemeral.google_client_config.this.access_token
      DCM2BQ_TABLE   = self.triggers_replace.table
      DCM2BQ_COLUMNS = jsonencode(local.columns[each.key])
      DCM2BQ_PRIVACY = self.triggers_replace.privacy
    }
  }
}

# A view is replaced when its SQL or its columns change, since the provider cannot change the columns of
# one in place. Nothing is lost with a view but grants on that view itself: grant on the dataset.
resource "terraform_data" "view" {
  for_each = { for name, view in local.views : name => view if !var.dataset.existing }

  input = sha256(jsonencode([each.value.schema.fields, local.queries[each.key]]))
}

resource "google_bigquery_table" "view" {
  #checkov:skip=CKV_GCP_80: a view holds nothing
  #checkov:skip=CKV_GCP_121: a view holds nothing
  for_each = { for name in local.level_0 : name => local.views[name] if !var.dataset.existing }

  project             = var.project_id
  dataset_id          = local.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = local.labels
  schema              = jsonencode(each.value.schema.fields)
  deletion_protection = false # a view holds nothing

  ignore_auto_generated_schema = true

  view {
    query          = local.queries[each.key]
    use_legacy_sql = false
  }

  lifecycle {
    replace_triggered_by = [terraform_data.view[each.key]]
  }

  depends_on = [terraform_data.columns]
}

# Views over views.
resource "google_bigquery_table" "aggregate" {
  #checkov:skip=CKV_GCP_80: a view holds nothing
  #checkov:skip=CKV_GCP_121: a view holds nothing
  for_each = { for name in local.level_1 : name => local.views[name] if !var.dataset.existing }

  project             = var.project_id
  dataset_id          = local.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = local.labels
  schema              = jsonencode(each.value.schema.fields)
  deletion_protection = false # a view holds nothing

  ignore_auto_generated_schema = true

  view {
    query          = local.queries[each.key]
    use_legacy_sql = false
  }

  lifecycle {
    replace_triggered_by = [terraform_data.view[each.key]]
  }

  depends_on = [google_bigquery_table.view]
}

resource "google_bigquery_table" "aggregate_2" {
  #checkov:skip=CKV_GCP_80: a view holds nothing
  #checkov:skip=CKV_GCP_121: a view holds nothing
  for_each = { for name in local.level_2 : name => local.views[name] if !var.dataset.existing }

  project             = var.project_id
  dataset_id          = local.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = local.labels
  schema              = jsonencode(each.value.schema.fields)
  deletion_protection = false # a view holds nothing

  ignore_auto_generated_schema = true

  view {
    query          = local.queries[each.key]
    use_legacy_sql = false
  }

  lifecycle {
    replace_triggered_by = [terraform_data.view[each.key]]
  }

  depends_on = [google_bigquery_table.aggregate]
}

resource "google_bigquery_table" "aggregate_3" {
  #checkov:skip=CKV_GCP_80: a view holds nothing
  #checkov:skip=CKV_GCP_121: a view holds nothing
  for_each = { for name in local.level_3 : name => local.views[name] if !var.dataset.existing }

  project             = var.project_id
  dataset_id          = local.dataset_id
  table_id            = each.value.tableReference.tableId
  description         = each.value.description
  labels              = local.labels
  schema              = jsonencode(each.value.schema.fields)
  deletion_protection = false # a view holds nothing

  ignore_auto_generated_schema = true

  view {
    query          = local.queries[each.key]
    use_legacy_sql = false
  }

  lifecycle {
    replace_triggered_by = [terraform_data.view[each.key]]
  }

  depends_on = [google_bigquery_table.aggregate_2]
}

resource "google_bigquery_routine" "table_function" {
  for_each = { for name, function in local.table_functions : name => function if !var.dataset.existing }

  project         = var.project_id
  dataset_id      = local.dataset_id
  routine_id      = each.value.routineReference.routineId
  routine_type    = each.value.routineType
  language        = each.value.language
  description     = each.value.description
  definition_body = local.queries[each.key]

  dynamic "arguments" {
    for_each = each.value.arguments

    content {
      name      = arguments.value.name
      data_type = jsonencode(arguments.value.dataType)
    }
  }

  depends_on = [google_bigquery_table.aggregate_3]
}
