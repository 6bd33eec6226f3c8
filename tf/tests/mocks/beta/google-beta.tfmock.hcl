override_resource {
  target = google_project_service_identity.agent["eventarc"]
  values = { member = "serviceAccount:eventarc-agent" }
}

override_resource {
  target = google_project_service_identity.agent["pubsub"]
  values = { member = "serviceAccount:pubsub-agent" }
}

override_resource {
  target = google_project_service_identity.agent["bigquerydatatransfer"]
  values = { member = "serviceAccount:bigquerydatatransfer-agent" }
}

override_resource {
  target = google_project_service_identity.agent["artifactregistry"]
  values = { member = "serviceAccount:artifactregistry-agent" }
}

override_resource {
  target = google_project_service_identity.agent["cloudfunctions"]
  values = { member = "serviceAccount:cloudfunctions-agent" }
}

override_resource {
  target = google_project_service_identity.agent["run"]
  values = { member = "serviceAccount:run-agent" }
}
