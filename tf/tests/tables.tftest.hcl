# Tables, views and table functions are those of dcm2bq/schema.

mock_provider "google" {
  source = "./tests/mocks/google"
}

mock_provider "google-beta" {
  source = "./tests/mocks/beta"
}

mock_provider "time" {}

variables {
  project_id = "my-project"
  region     = "us-central1"
  python     = "./tests/python"
  dataset    = { id = "radiology", instances_table_id = "headers", dead_letter_table_id = "failures" }
}

run "nothing_of_the_schema_is_left_out" {
  assert {
    condition = toset(concat(keys(local.tables), keys(local.created_views), keys(local.table_functions))) == toset([
      for file in fileset(path.module, "../dcm2bq/schema/**/*.json") : trimsuffix(basename(file), ".json")
    ])
    error_message = "a file of dcm2bq/schema is not created: views may be nested more deeply than dataset.tf has levels"
  }
}

run "the_tables_are_partitioned_clustered_described_and_protected" {
  assert {
    condition = { for name, table in google_bigquery_table.table : name => [
      table.dataset_id, table.table_id, try(table.time_partitioning[0].type, null), try(table.time_partitioning[0].field, null), table.deletion_protection,
      ] } == {
      instances          = ["radiology", "headers", "MONTH", "ingested_at", true]
      dead_letter        = ["radiology", "failures", "MONTH", "publish_time", true]
      objects            = ["radiology", "objects", "MONTH", "ingested_at", true]
      protocol_reference = ["radiology", "protocol_reference", null, null, true]
      dicom_dictionary   = ["radiology", "dicom_dictionary", null, null, true]
    }
    error_message = "the tables have other properties"
  }
  assert {
    condition     = google_bigquery_table.table["instances"].clustering == tolist(["event", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
    error_message = "the table instances is clustered otherwise"
  }
  assert {
    condition     = google_bigquery_table.table["dead_letter"].clustering == null
    error_message = "the table dead_letter is clustered"
  }
  assert {
    condition = alltrue([
      for name, table in google_bigquery_table.table :
      table.description == jsondecode(file("../dcm2bq/schema/${local.files[name]}.json")).description
      && jsondecode(table.schema) == jsondecode(file("../dcm2bq/schema/${local.files[name]}.json")).schema.fields
    ])
    error_message = "the columns or the descriptions are not those of dcm2bq/schema"
  }
  assert {
    condition = { for column in jsondecode(google_bigquery_table.table["instances"].schema) : column.name => "${column.type} ${column.mode}" if contains(["timestamp", "metadata", "StudyDate", "StudyTime", "SeriesNumber"], column.name) } == {
      timestamp    = "TIMESTAMP REQUIRED"
      metadata     = "JSON NULLABLE"
      StudyDate    = "DATE NULLABLE"
      StudyTime    = "TIME NULLABLE"
      SeriesNumber = "INTEGER NULLABLE"
    }
    error_message = "the columns have other types"
  }
}

run "the_views_name_the_tables_in_full" {
  assert {
    condition = alltrue([
      for name, view in local.created_views :
      view.table_id == name
      && view.deletion_protection == false
      && view.view[0].use_legacy_sql == false
      && view.description == jsondecode(file("../dcm2bq/schema/${local.files[name]}.json")).description
      && jsondecode(view.schema) == jsondecode(file("../dcm2bq/schema/${local.files[name]}.json")).schema.fields
    ])
    error_message = "the views have other properties"
  }
  assert {
    condition = { for name, view in local.created_views : name => join(" ", distinct(regexall("`my-project[^`]*`", view.view[0].query))) if !startswith(local.files[name], "analysis/") } == {
      instances_live    = "`my-project.radiology.headers`"
      dead_letters      = "`my-project.radiology.failures` `my-project.radiology.headers`"
      dismissed_letters = "`my-project.radiology.failures` `my-project.radiology.dead_letters` `my-project.radiology.headers`"
      studies           = "`my-project.radiology.instances_live`"
      series            = "`my-project.radiology.instances_live`"
      patients          = "`my-project.radiology.instances_live`"
      storage           = "`my-project.radiology.instances_live`"
      objects_live      = "`my-project.radiology.headers` `my-project.radiology.objects`"
    }
    error_message = "the views read from elsewhere"
  }
}

run "the_table_functions_take_their_arguments" {
  assert {
    condition = { for name, function in google_bigquery_routine.table_function : name => [
      function.routine_id, function.routine_type, function.language, function.definition_body == templatefile("../dcm2bq/schema/${local.files[name]}.sql", local.names),
      [for argument in function.arguments : "${argument.name} ${jsondecode(argument.data_type).typeKind}"],
      ] } == {
      study               = ["study", "TABLE_VALUED_FUNCTION", "SQL", true, ["uid STRING"]]
      ingested_between    = ["ingested_between", "TABLE_VALUED_FUNCTION", "SQL", true, ["since TIMESTAMP", "until TIMESTAMP"]]
      changes_between     = ["changes_between", "TABLE_VALUED_FUNCTION", "SQL", true, ["since TIMESTAMP", "until TIMESTAMP"]]
      protocol_deviations = ["protocol_deviations", "TABLE_VALUED_FUNCTION", "SQL", true, ["since DATE"]]
      private_element     = ["private_element", "TABLE_VALUED_FUNCTION", "SQL", true, ["creator STRING", "element STRING"]]
    }
    error_message = "the table functions have other properties"
  }
}

run "the_dataset_is_never_deleted_with_its_contents" {
  assert {
    condition = [
      google_bigquery_dataset.dicom[0].dataset_id, google_bigquery_dataset.dicom[0].location, google_bigquery_dataset.dicom[0].delete_contents_on_destroy,
    ] == ["radiology", "us-central1", false]
    error_message = "the dataset has other properties"
  }
}

run "protection_can_be_taken_off" {
  variables {
    dataset = { deletion_protection = false }
  }

  assert {
    condition     = !anytrue([for table in google_bigquery_table.table : table.deletion_protection])
    error_message = "the tables are protected"
  }
}

run "the_dataset_is_closed_to_basic_roles" {
  assert {
    condition     = [for entry in google_bigquery_dataset.dicom[0].access : [entry.role, entry.special_group]] == [["OWNER", "projectOwners"]]
    error_message = "others than owners of the project can read the dataset"
  }
}

run "readers_can_query_the_dataset" {
  variables {
    dataset = { readers = ["group:research@example.org"] }
  }

  assert {
    condition     = [google_bigquery_dataset_iam_member.this["reader/group:research@example.org"].role, google_bigquery_dataset_iam_member.this["reader/group:research@example.org"].dataset_id] == ["roles/bigquery.dataViewer", "dicom"]
    error_message = "a reader has another role"
  }
}

run "analysis_views_read_by_levels" {
  assert {
    condition = [
      contains(keys(google_bigquery_table.aggregate), "sr_content"), contains(keys(google_bigquery_table.aggregate_2), "dose_events"),
      contains(keys(google_bigquery_table.aggregate_3), "dose_summary"),
    ] == [true, true, true]
    error_message = "a view is created before one that it reads"
  }
  assert {
    condition     = length(output.views_left_out) == 0
    error_message = "views are left out"
  }
}

run "analysis_views_are_left_out_if_headers_have_another_shape" {
  variables {
    config = { jsonOutput = { format = "dicom-json" } }
  }

  assert {
    condition     = length(local.created_views) + length(output.views_left_out) == length(local.view_names) + length([for name, file in local.files : name if startswith(file, "analysis/") && !contains(local.view_names, name)])
    error_message = "views are neither created nor left out"
  }
  assert {
    condition     = !anytrue([for name in keys(local.created_views) : startswith(local.files[name], "analysis/")])
    error_message = "views that cannot read the headers are created"
  }
  assert {
    condition     = contains(output.views_left_out, "dose_summary")
    error_message = "the views that are left out are not named"
  }
}
