"""Keys, certificates and grants of a consortium: made where they are used, signed by its coordinator.

In:  `consortium.yaml` at the coordinator, a kit at the site.   Out: the folders that server and sites start from.
Never: a private key in a file that travels; a change to one site's files because of another site.

kit (coordinator -> site), request (site -> coordinator), grant (coordinator -> site): docs/provisioning.md.
"""
