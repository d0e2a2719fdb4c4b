"""The tasks that a run learns: captioning and captcha."""
