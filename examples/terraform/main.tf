# The same zip and templates by Terraform: `askonce package --code` names where Terraform will put
# the zip, and CloudFormation makes the stacks. See docs/deploying.md.
#
#   askonce package --stage core --stage edge-rest --code s3://BUCKET/askonce-VERSION.zip
#   terraform apply -var bucket=BUCKET -var release=VERSION

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "bucket" { description = "An existing bucket for code" }
variable "release" { description = "Names the zip: a new name makes the functions take it" }
variable "prefix" { default = "askonce" }
variable "alarm_email" { default = "" }
variable "edges" { default = ["edge-rest"] }

locals {
  packaged     = "${path.module}/../../build/out"
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
}

resource "aws_s3_object" "code" {
  bucket = var.bucket
  key    = "askonce-${var.release}.zip"
  source = "${local.packaged}/askonce-x86_64.zip"
}

# Templates this long are read from a bucket.
resource "aws_s3_object" "template" {
  for_each = toset(concat(["core"], var.edges))
  bucket   = var.bucket
  key      = "askonce-${var.release}-${each.key}.yaml"
  content  = file("${local.packaged}/${each.key}.yaml")
}

resource "aws_cloudformation_stack" "core" {
  name         = "${var.prefix}-core"
  template_url = "https://${var.bucket}.s3.amazonaws.com/${aws_s3_object.template["core"].key}"
  capabilities = local.capabilities
  parameters   = { Prefix = var.prefix, AlarmEmail = var.alarm_email }
  depends_on   = [aws_s3_object.code]
}

resource "aws_cloudformation_stack" "edge" {
  for_each     = toset(var.edges)
  name         = "${var.prefix}-${each.key}"
  template_url = "https://${var.bucket}.s3.amazonaws.com/${aws_s3_object.template[each.key].key}"
  capabilities = local.capabilities
  parameters   = { Prefix = var.prefix }
  depends_on   = [aws_cloudformation_stack.core] # it exports the key
}

output "urls" {
  value = { for name, stack in aws_cloudformation_stack.edge : name => stack.outputs["EndpointURL"] }
}
