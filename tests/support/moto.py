"""Fills a moto server that was started with INITIAL_NO_AUTH_ACTION_COUNT=3.

    moto.py URL BUCKET DIRECTORY      uploads every file below DIRECTORY to BUCKET

The server checks signatures and policies from the fourth call on. The program prints, as JSON, the
keys of a user with all permissions, a role that this user may assume, and the keys of a user
without permissions.
"""

import json
import os
import sys

import boto3

url, bucket, directory = sys.argv[1:]


def client(service, key="none", secret="none"):
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


def allowing(*actions):
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


iam = client("iam")
iam.create_user(UserName="loader")
keys = iam.create_access_key(UserName="loader")["AccessKey"]
iam.put_user_policy(UserName="loader", PolicyName="all", PolicyDocument=allowing("*"))

mine = keys["AccessKeyId"], keys["SecretAccessKey"]
iam = client("iam", *mine)
role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=allowing("sts:AssumeRole"))
reading = allowing("s3:GetObject", "s3:ListBucket")
iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=reading)
iam.create_user(UserName="nobody")
nobody = iam.create_access_key(UserName="nobody")["AccessKey"]

s3 = client("s3", *mine)
s3.create_bucket(Bucket=bucket)
for folder, _, names in os.walk(directory):
    for name in names:
        path = os.path.join(folder, name)
        key = os.path.relpath(path, directory)
        with open(path, "rb") as file:
            s3.put_object(Bucket=bucket, Key=key, Body=file, ChecksumAlgorithm="CRC32")

print(
    json.dumps(
        {
            "key": mine[0],
            "secret": mine[1],
            "role": role["Role"]["Arn"],
            "denied_key": nobody["AccessKeyId"],
            "denied_secret": nobody["SecretAccessKey"],
        }
    )
)
