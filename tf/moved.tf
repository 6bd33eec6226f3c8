# What had another address in earlier versions of this folder.

moved {
  from = google_eventarc_trigger.further
  to   = google_eventarc_trigger.event
}

# One bucket became several.

moved {
  from = google_storage_bucket.dicom[0]
  to   = google_storage_bucket.dicom["dicom"]
}

moved {
  from = google_eventarc_trigger.event["archived"]
  to   = google_eventarc_trigger.event["dicom/archived"]
}

moved {
  from = google_eventarc_trigger.event["deleted"]
  to   = google_eventarc_trigger.event["dicom/deleted"]
}

moved {
  from = google_eventarc_trigger.event["finalized"]
  to   = google_eventarc_trigger.event["dicom/finalized"]
}

moved {
  from = google_eventarc_trigger.event["metadataUpdated"]
  to   = google_eventarc_trigger.event["dicom/metadataUpdated"]
}

moved {
  from = google_pubsub_subscription_iam_member.dead_letter["archived"]
  to   = google_pubsub_subscription_iam_member.dead_letter["dicom/archived"]
}

moved {
  from = google_pubsub_subscription_iam_member.dead_letter["deleted"]
  to   = google_pubsub_subscription_iam_member.dead_letter["dicom/deleted"]
}

moved {
  from = google_pubsub_subscription_iam_member.dead_letter["finalized"]
  to   = google_pubsub_subscription_iam_member.dead_letter["dicom/finalized"]
}

moved {
  from = google_pubsub_subscription_iam_member.dead_letter["metadataUpdated"]
  to   = google_pubsub_subscription_iam_member.dead_letter["dicom/metadataUpdated"]
}

moved {
  from = terraform_data.subscription["archived"]
  to   = terraform_data.subscription["dicom/archived"]
}

moved {
  from = terraform_data.subscription["deleted"]
  to   = terraform_data.subscription["dicom/deleted"]
}

moved {
  from = terraform_data.subscription["finalized"]
  to   = terraform_data.subscription["dicom/finalized"]
}

moved {
  from = terraform_data.subscription["metadataUpdated"]
  to   = terraform_data.subscription["dicom/metadataUpdated"]
}

moved {
  from = google_storage_bucket_iam_member.this["backfill"]
  to   = google_storage_bucket_iam_member.this["backfill/dicom"]
}

moved {
  from = google_storage_bucket_iam_member.this["runtime"]
  to   = google_storage_bucket_iam_member.this["runtime/dicom"]
}

# The dataset can be another deployment's.
moved {
  from = google_bigquery_dataset.dicom
  to   = google_bigquery_dataset.dicom[0]
}

moved {
  from = google_service_account.runtime
  to   = google_service_account.this["runtime"]
}

moved {
  from = google_service_account.trigger
  to   = google_service_account.this["trigger"]
}

moved {
  from = google_service_account.build
  to   = google_service_account.this["build"]
}

moved {
  from = google_service_account.backfill[0]
  to   = google_service_account.this["backfill"]
}

moved {
  from = google_project_iam_custom_role.inserter
  to   = google_project_iam_custom_role.inserter[0]
}

moved {
  from = google_project_iam_member.trigger
  to   = google_project_iam_member.this["trigger"]
}

moved {
  from = google_project_iam_member.build["roles/artifactregistry.writer"]
  to   = google_project_iam_member.this["build_image"]
}

moved {
  from = google_project_iam_member.build["roles/logging.logWriter"]
  to   = google_project_iam_member.this["build_log"]
}

moved {
  from = google_project_iam_member.build_source
  to   = google_project_iam_member.this["build_source"]
}

moved {
  from = google_project_iam_member.storage_agent
  to   = google_project_iam_member.this["storage_agent"]
}

moved {
  from = google_project_iam_member.agent["eventarc"]
  to   = google_project_iam_member.this["eventarc_agent"]
}

moved {
  from = google_project_iam_member.agent["pubsub"]
  to   = google_project_iam_member.this["pubsub_agent"]
}

moved {
  from = google_project_iam_member.backfill["roles/bigquery.jobUser"]
  to   = google_project_iam_member.this["backfill_load"]
}

moved {
  from = google_project_iam_member.backfill["roles/dataflow.worker"]
  to   = google_project_iam_member.this["backfill_work"]
}

moved {
  from = google_storage_bucket_iam_member.runtime
  to   = google_storage_bucket_iam_member.this["runtime"]
}

moved {
  from = google_storage_bucket_iam_member.backfill[0]
  to   = google_storage_bucket_iam_member.this["backfill"]
}

moved {
  from = google_storage_bucket_iam_member.backfill_staging[0]
  to   = google_storage_bucket_iam_member.this["backfill_staging"]
}

moved {
  from = google_bigquery_dataset_iam_member.runtime
  to   = google_bigquery_dataset_iam_member.this["runtime"]
}

moved {
  from = google_bigquery_dataset_iam_member.backfill[0]
  to   = google_bigquery_dataset_iam_member.this["backfill"]
}

moved {
  from = google_bigquery_table_iam_member.dead_letter
  to   = google_bigquery_table_iam_member.dead_letter[0]
}

moved {
  from = google_pubsub_topic_iam_member.dead_letter
  to   = google_pubsub_topic_iam_member.dead_letter[0]
}

moved {
  from = google_secret_manager_secret_iam_member.runtime[0]
  to   = google_secret_manager_secret_iam_member.this["runtime"]
}

moved {
  from = google_cloud_run_v2_service_iam_member.trigger
  to   = google_cloud_run_v2_service_iam_member.trigger[0]
}
