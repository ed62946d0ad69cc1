-- One step of the audit: looks at the next accounts and mends what drifted.
WITH {{ audit_batch }},
{{ audit_mend }}
