WITH {{ audit_batch }},
{{ audit_mend }}
