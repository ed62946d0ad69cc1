"""Users, their accounts elsewhere, and their clips."""

from django.db import models


class User(models.Model):
    name = models.CharField(max_length=150, unique=True)


class SocialAccount(models.Model):
    """As sign-in libraries have it: a row for each provider, with its tokens."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    provider = models.CharField(max_length=200)
    uid = models.CharField(max_length=191)
    access_token = models.TextField(blank=True)
    access_token_expires = models.DateTimeField(null=True)
    last_login = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["provider", "uid"], name="one_uid"),)


class Clip(models.Model):
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    tiktok_id = models.CharField(max_length=20)
    title = models.CharField(max_length=200, blank=True)
    cover = models.URLField(max_length=2048, blank=True)
    cover_expires = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user", "tiktok_id"], name="one_clip"),)
