"""Verdict, plots, Allure files and evidence bundle; reads histories only."""
