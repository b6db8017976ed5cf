"""aws: what stands in for AWS beside the cluster, moto's server and Lambda's execution environments; spoken to by boto3 and by nothing else."""

IMAGE = "faasmesh.test/faasmesh/moto:1"
PORT = 5000
REGION = "us-east-1"
# moto's own; it has no other unless it is asked for one.
ACCOUNT = "123456789012"
