"""The fleet by Ansible: `deploy/ansible` over ssh, on containers with systemd."""
