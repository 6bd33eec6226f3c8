variable "project_id" {
  description = "Project that everything lives in, the bucket included."
  type        = string

  validation {
    condition     = can(regex("^([a-z][a-z0-9.-]*[a-z0-9]:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project's id, such as my-project-123: not its name, not its number."
  }
}

variable "region" {
  description = "Region of the function. By default the bucket's own region, or one within its multi- or dual-region; name it for a configurable dual-region."
  type        = string
  default     = null

  validation {
    condition     = var.region == null || can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region, such as europe-west4: not a zone, not a multi-region."
  }
}

variable "suffix" {
  description = "Sets several deployments in one project apart: it ends the name of everything that is created."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?)?$", var.suffix))
    error_message = "suffix must be at most 10 lower case letters, digits and hyphens, with a letter or digit at either end."
  }
}

variable "labels" {
  description = "Labels of everything that takes labels, beside `application`."
  type        = map(string)
  default     = {}
}

variable "bucket" {
  description = "The bucket of the DICOM objects: a new one, or with `existing` one that is there already, by `name`. By default `PROJECT-dicom[-SUFFIX]` in `region`, or in `US` where that is not given either. `folders_are_never_renamed` admits a bucket with hierarchical namespace."
  type = object({
    name                      = optional(string)
    existing                  = optional(bool, false)
    location                  = optional(string)
    versioning                = optional(bool, false)
    folders_are_never_renamed = optional(bool, false)
  })
  default = {}

  validation {
    condition     = !var.bucket.existing || var.bucket.name != null
    error_message = "bucket.name must name the bucket when bucket.existing is true."
  }
  validation {
    condition     = var.bucket.name == null || can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", var.bucket.name))
    error_message = "bucket.name must be a bucket's name alone: no gs://, no path, no capital letters."
  }
}

variable "dataset" {
  description = "The BigQuery dataset and its tables. By default `dicom[_SUFFIX]`, in the bucket's location where BigQuery has it, else in the function's region. Without `deletion_protection`, `terraform destroy` drops the tables with their rows."
  type = object({
    id                   = optional(string)
    location             = optional(string)
    instances_table_id   = optional(string, "instances")
    dead_letter_table_id = optional(string, "dead_letter")
    deletion_protection  = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.dataset.id == null || can(regex("^[A-Za-z0-9_]+$", var.dataset.id))
    error_message = "dataset.id must consist of letters, digits and underscores."
  }
  validation {
    condition     = alltrue([for id in [var.dataset.instances_table_id, var.dataset.dead_letter_table_id] : can(regex("^[A-Za-z0-9_]+$", id))])
    error_message = "dataset.instances_table_id and dataset.dead_letter_table_id must consist of letters, digits and underscores."
  }
  validation {
    condition = length(distinct([for id in concat(
      [var.dataset.instances_table_id, var.dataset.dead_letter_table_id],
      ["instances_live", "studies", "series", "patients", "dead_letters", "dismissed_letters"],
    ) : lower(id)])) == 8
    error_message = "dataset.instances_table_id and dataset.dead_letter_table_id must differ from each other and from the views: instances_live, studies, series, patients, dead_letters, dismissed_letters."
  }
}

variable "function" {
  description = "Size and bounds of the function. `concurrency` events share one instance; `timeout_seconds` must leave the 10 seconds above `limits.deadlineSeconds` that a dead letter may take, and stay below the acknowledgement deadline of 600."
  type = object({
    memory          = optional(string, "512Mi")
    cpu             = optional(string, "1")
    concurrency     = optional(number, 8)
    min_instances   = optional(number, 0)
    max_instances   = optional(number, 20)
    timeout_seconds = optional(number, 120)
  })
  default = {}

  validation {
    condition     = can(regex("^[1-9][0-9]*(Mi|Gi)$", var.function.memory))
    error_message = "function.memory must be a size in Mi or Gi, such as 512Mi."
  }
  validation {
    condition     = var.function.concurrency >= 1 && var.function.concurrency <= 1000 && floor(var.function.concurrency) == var.function.concurrency
    error_message = "function.concurrency must be a whole number from 1 to 1000."
  }
  validation {
    condition     = can(tonumber(var.function.cpu)) && (try(tonumber(var.function.cpu), 0) >= 1 || var.function.concurrency == 1)
    error_message = "function.cpu must be at least 1 when function.concurrency is more than 1."
  }
  validation {
    condition     = var.function.min_instances >= 0 && var.function.max_instances >= max(1, var.function.min_instances)
    error_message = "function.max_instances must be at least 1 and at least function.min_instances."
  }
  validation {
    condition     = var.function.timeout_seconds >= try(tonumber(var.config.limits.deadlineSeconds), 50) + 10
    error_message = "function.timeout_seconds must be at least 10 more than config.limits.deadlineSeconds (50 by default): a dead letter may take that long."
  }
  validation {
    condition     = var.function.timeout_seconds < 600
    error_message = "function.timeout_seconds must be below 600, the acknowledgement deadline of the subscriptions."
  }
}

variable "reindex_on_metadata_update" {
  description = "Index an object again when its metadata is touched: adds a trigger on `metadataUpdated`, and sets `events.reindexOnMetadataUpdate`."
  type        = bool
  default     = false
}

variable "privacy" {
  description = "The `privacy` options of the function. `hash_key` names a secret of Secret Manager, in this project, that holds the key of the hash, and its version; the version is part of the fingerprint that labels the table."
  type = object({
    profile = optional(string)
    remove  = optional(list(string), [])
    hash    = optional(list(string), [])
    hash_key = optional(object({
      secret  = string
      version = string
    }))
  })
  default = {}

  validation {
    condition     = var.privacy.profile == null || try(var.privacy.profile == "basic", false)
    error_message = "privacy.profile must be basic, or be left out."
  }
  validation {
    condition     = alltrue([for name in concat(var.privacy.remove, var.privacy.hash) : can(regex("^[A-Za-z0-9]+$", name))])
    error_message = "privacy.remove and privacy.hash must list keywords (PatientName), tags (00100010, 60xx3000) or private: letters and digits alone."
  }
  validation {
    condition     = var.privacy.hash_key == null || can(regex("^[1-9][0-9]*$", var.privacy.hash_key.version))
    error_message = "privacy.hash_key.version must be a version's number: latest would change the pseudonyms unnoticed."
  }
  validation {
    condition     = var.privacy.hash_key == null || can(regex("^[A-Za-z0-9_-]{1,255}$", var.privacy.hash_key.secret))
    error_message = "privacy.hash_key.secret must be a secret's id alone: no projects/, no versions/."
  }
  validation {
    condition     = (length(var.privacy.hash) == 0 && var.privacy.profile == null) || var.privacy.hash_key != null
    error_message = "privacy.hash_key must be given with privacy.hash and with privacy.profile: both hash."
  }
}

variable "config" {
  description = "Further options of the function, as README lists them: `{ jsonOutput = { ignorePrivate = true } }`. What other variables set is refused here."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.config)) && alltrue([for group in try(values(var.config), []) : can(keys(group))])
    error_message = "config must be an object of groups of options, such as { jsonOutput = { ignorePrivate = true } }."
  }
  validation {
    condition     = !can(var.config.privacy)
    error_message = "config.privacy must be left out: use the variable privacy."
  }
  validation {
    condition     = length(setintersection(try(keys(var.config.bigQuery), []), ["projectId", "datasetId", "instancesTableId", "deadLetterTableId"])) == 0
    error_message = "config.bigQuery must not name project, dataset or tables: use the variables project_id and dataset."
  }
  validation {
    condition     = !can(var.config.input.buckets)
    error_message = "config.input.buckets must be left out: it is the bucket of the variable bucket."
  }
  validation {
    condition     = !can(var.config.events.reindexOnMetadataUpdate)
    error_message = "config.events.reindexOnMetadataUpdate must be left out: use the variable reindex_on_metadata_update."
  }
  validation {
    condition     = try(tonumber(var.config.bigQuery.timeoutSeconds), 30) <= try(tonumber(var.config.limits.deadlineSeconds), 50)
    error_message = "config.bigQuery.timeoutSeconds (30 by default) must not exceed config.limits.deadlineSeconds (50 by default)."
  }
  validation {
    condition     = try(tonumber(var.config.retry.maxAgeSeconds), 43200) <= 56400
    error_message = "config.retry.maxAgeSeconds must be at most 56400: 100 attempts last about 15.7 hours, and the function has to give up first."
  }
}

variable "alerts" {
  description = "Who is told, and when. `emails` are made into notification channels, `notification_channels` are the ids of those that exist. `silence_hours` (1 to 24) warns when no event was handled for so long; only for buckets that are never idle."
  type = object({
    emails                 = optional(list(string), [])
    notification_channels  = optional(list(string), [])
    failed_ratio           = optional(number, 0.05)
    oldest_unacked_minutes = optional(number, 60)
    silence_hours          = optional(number)
  })
  default = {}

  validation {
    condition     = alltrue([for email in var.alerts.emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "alerts.emails must be e-mail addresses."
  }
  validation {
    condition     = alltrue([for id in var.alerts.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", id))])
    error_message = "alerts.notification_channels must be ids such as projects/my-project/notificationChannels/123."
  }
  validation {
    condition     = var.alerts.failed_ratio > 0 && var.alerts.failed_ratio <= 1
    error_message = "alerts.failed_ratio must be above 0 and at most 1: 0.05 is 5 % of the events."
  }
  validation {
    condition     = var.alerts.oldest_unacked_minutes >= 15
    error_message = "alerts.oldest_unacked_minutes must be at least 15: a retry alone may wait for 10 minutes."
  }
  validation {
    condition     = var.alerts.silence_hours == null || try(var.alerts.silence_hours >= 1 && var.alerts.silence_hours <= 24, false)
    error_message = "alerts.silence_hours must be from 1 to 24, or be left out."
  }
}

variable "kms_key" {
  description = "Cloud KMS key (`projects/P/locations/L/keyRings/R/cryptoKeys/K`) for what holds data: a new bucket, the dataset, the dead-letter topic. It must be usable in the locations of all three."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key must be a key's full name: projects/P/locations/L/keyRings/R/cryptoKeys/K."
  }
}

variable "vpc_connector" {
  description = "Serverless VPC Access connector (`projects/P/locations/L/connectors/C`) that the function's traffic leaves by: all of it with `all_traffic`, else that to private addresses."
  type = object({
    id          = string
    all_traffic = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.vpc_connector == null || can(regex("^projects/[^/]+/locations/[^/]+/connectors/[^/]+$", var.vpc_connector.id))
    error_message = "vpc_connector.id must be a connector's full name: projects/P/locations/L/connectors/C."
  }
}

variable "backfill" {
  description = "Makes what `dcm2bq backfill` needs on Dataflow: a staging bucket in the dataset's location, whose files go after `staging_days`, and an identity for the workers."
  type = object({
    enabled      = optional(bool, false)
    staging_days = optional(number, 14)
  })
  default = {}

  validation {
    condition     = var.backfill.staging_days >= 1 && var.backfill.staging_days <= 90
    error_message = "backfill.staging_days must be from 1 to 90: what is staged holds patient data."
  }
}

variable "gcloud" {
  description = "The gcloud executable, which completes the subscriptions of the triggers."
  type        = string
  default     = "gcloud"
}
