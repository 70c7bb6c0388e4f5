"""The Kubernetes edge: lists and watches, and their translation into intent."""
